"""POP3: commands, states, replies, the protocol over a transport, and conversations as scripts."""
