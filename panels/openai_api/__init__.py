"""The page's model for programs that speak OpenAI's API: `/v1/models`, `/v1/completions`, `/v1/chat/completions`.

requests.py reads what a request asks for, choices.py has the page's generation loop make it, replies.py writes OpenAI's
JSON, and server.py is the web application that the page mounts. docs/openai.md lists what is offered.
"""
