"""Pure decisions: values in, values out.  No thread, clock, file, socket or logger."""
