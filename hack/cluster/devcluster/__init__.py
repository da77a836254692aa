"""A real Kubernetes cluster for development, made and removed by one command each.

Standard library only: it runs before any virtual environment exists.

cli.py       commands and their output
paths.py     where everything lives; names of a cluster's files
backend.py   which kind of cluster is used: a named context, kind, or our own
steps.py     progress lines, errors, running programs
procs.py     starting, recording, checking and ending processes
packages.py  Debian packages that the node needs
gobuild.py   the Kubernetes binaries, built once from Go modules
api.py       the few API calls that this program makes itself
control.py   certificates, etcd, API server, controller manager, scheduler
sandbox.py   the namespaces, address range and cgroup that a node lives in
node.py      containerd, kubelet, kube-proxy and the pod network
cluster.py   up and down of our own cluster, built from the parts above
foreign.py   the same for kind and for a named context
archive.py   image archives: written, read and sent without what is there
images.py    building the project's images and loading them into a cluster
"""
