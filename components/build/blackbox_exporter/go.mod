module luxima/build/blackbox_exporter

go 1.26

require github.com/prometheus/blackbox_exporter v0.28.0
