"""The whole of ``stillwatch serve`` before one's eyes: a real gateway, traffic through it, a campaign, and what is done about it.

``month`` is what is sent, ``model`` what stands behind the gateway, ``proxy`` the gateway (LiteLLM), ``processes`` what runs,
``asking`` how it is asked, ``story`` the steps, ``running`` the order of starts and ends. Nothing is played but the model and the
people: traffic goes through the proxy, its own log comes in, the judge finds what it finds, and a step that does not give what it
says is an error.
"""
