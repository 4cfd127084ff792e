"""What committed entries and reads do: requests in, answers in wire form out."""
