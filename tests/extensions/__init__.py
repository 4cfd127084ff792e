"""Extensions that come with actcd."""
