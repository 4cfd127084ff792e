"""The gRPC proxy: serves etcd's API in front of a cluster, with fewer watchers and reads behind it than before it."""
