"""Where people look: each module turns a diagnosis or a history into something to see."""
