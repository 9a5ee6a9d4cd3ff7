"""A real Kubernetes cluster for the tests: `python -m tests.cluster up DIR`, `down DIR`.

Each of its nodes, one or two, is a set of Linux namespaces on this machine, so that it can run beside
a Docker engine and other clusters, and takes everything with it when it ends: processes, mounts,
interfaces, firewall rules. What remains on the outside (one interface pair, three firewall rules, a
control group for each node) is removed by `down`. The second node has a kubelet, a containerd and
folders of its own, and reaches everything through the first. Kubernetes itself is built by
.ci/kubernetes, the rest are Debian packages.
"""
