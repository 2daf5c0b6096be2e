"""What people see: each module turns a diagnosis or a recording into text or figures."""
