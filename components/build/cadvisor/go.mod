module luxima/build/cadvisor

go 1.19

require (
	github.com/google/cadvisor v0.36.0
	k8s.io/klog v1.0.0
)
