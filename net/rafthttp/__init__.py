"""The protocol between members: streams of raft messages over HTTP/1.1, posts beside them."""
