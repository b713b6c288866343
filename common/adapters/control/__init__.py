"""Commands to a running program, by a Unix socket.

A request is a line of JSON, `{"command": NAME, "arguments": {…}}`. Its answer is `{"result": …}` or
`{"error": "one line"}`, a line as well; before a result may come parts of it, `{"part": [items]}`,
so that neither side ever holds the whole of a long one. Requests are answered in their order.
"""
