"""The native HTTP/2 server side: frames, header blocks, connections and gRPC on top of them."""
