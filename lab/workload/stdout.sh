#!/bin/sh
# Prints one JSON line (format A) per second, as a containerised service would.
n=0
while :; do
  n=$((n + 1))
  case $((n % 10)) in
    0) level=error event=payment_failed message="gateway timed out" ;;
    5) level=warn event=payment_retried message="gateway was slow" ;;
    *) level=info event=payment_settled message="payment settled" ;;
  esac
  if [ $((n % 2)) = 0 ]; then tenant=tenant_001; else tenant=tenant_123; fi
  now=$(date -u +%Y-%m-%dT%H:%M:%S.000Z)
  printf '{"timestamp":"%s","service":"payment-gateway","level":"%s","tenant_id":"%s","user_id":"user_42","event":"%s","message":"%s %s","context":{"ip":"10.1.2.3","user_agent":"gateway/1.0"}}\n' \
    "$now" "$level" "$tenant" "$event" "$message" "$n"
  sleep 1
done
