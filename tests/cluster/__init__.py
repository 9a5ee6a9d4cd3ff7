"""A real one-node Kubernetes cluster for the tests: `python -m tests.cluster up DIR`, `down DIR`.

The node is a set of Linux namespaces on this machine, so that it can run beside a Docker engine and
other clusters, and takes everything with it when it ends: processes, mounts, interfaces, firewall
rules. What remains on the outside (one interface pair, three firewall rules, one control group) is
removed by `down`. Kubernetes itself is built by .ci/kubernetes, the rest are Debian packages.
"""
