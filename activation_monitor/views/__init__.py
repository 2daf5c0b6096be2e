"""Where people look: each module turns a diagnosis or a recording into something to see."""
