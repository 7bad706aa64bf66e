#!/usr/bin/python3
# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""A server that fails on demand. Reads the JSON file named by its argument at the start and on SIGHUP."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import signal
import socketserver
import sys
import threading
import time

STARTED = time.time()
STATE = {"config": {}, "reloads": 0, "ok": 1}


def load():
    return json.loads(pathlib.Path(sys.argv[1]).read_text())


def reload(*_):
    new = load()
    if new.get("ignore_reload"):
        return
    STATE["reloads"] += 1
    STATE["ok"] = 0 if new.get("refuse_reload") else 1
    if STATE["ok"]:
        STATE["config"] = new


class Server(socketserver.ThreadingTCPServer):
    """Without the name look-up of HTTPServer, which takes seconds where no resolver answers."""

    allow_reuse_address = True
    daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/ready":
            ready = time.time() - STARTED >= STATE["config"].get("ready_after", 0)
            self.answer(200 if ready else 503, "ready" if ready else "starting, please wait")
        elif self.path == "/metrics":
            self.answer(
                200, f'toy_reloads_total{{kind="hup"}} {STATE["reloads"]}\ntoy_reload_ok {STATE["ok"]}\n'
            )
        else:
            self.answer(200, json.dumps({**STATE["config"], "pid": os.getpid()}))

    def do_POST(self):
        reload()
        self.answer(
            200 if STATE["ok"] else 500, "reloaded" if STATE["ok"] else "toy cannot use refuse_reload"
        )

    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def main():
    STATE["config"] = config = load()
    if sys.argv[2:] == ["--check"]:
        sys.exit("toy: key `broken` is not allowed" if "broken" in config else 0)
    if config.get("crash"):
        sys.exit("toy: I was told to crash")
    if "crash_after" in config:
        threading.Timer(
            config["crash_after"], lambda: (print("toy: crashing late", flush=True), os._exit(3))
        ).start()
    signal.signal(signal.SIGHUP, reload)
    server = Server(("127.0.0.1", int(os.environ["TOY_PORT"])), Handler)
    print("toy: serving", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
