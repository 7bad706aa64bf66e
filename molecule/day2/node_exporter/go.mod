module luxima/build/node_exporter

go 1.26

require github.com/prometheus/node_exporter v1.11.1
