"""Extensions that come with actcd; each is also an example.  Named in the configuration, they are part of no node."""
