"""What the API does: gRPC methods and HTTP pages, whatever engine carries them."""
