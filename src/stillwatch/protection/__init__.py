"""Outputs that are worth less to who trains on them, and proof of what a suspect model learnt from.

A campaign under action is given a *watermark*: a secret key of its own, issued before any test, committed to in a ledger
that cannot be rewritten (``keys``, ``book``). The engine's sampler leans towards tokens that the key's *coins* favour
(``coins``, ``samplers``); the gateway says which key by an opaque id, and nobody else can. A model trained on such
outputs leans the same way, and ``proving`` tests for that, against the provider's own unwatermarked model. ``canaries``
are a second kind of evidence, ``reasoning`` keeps what only training needs. ``bench`` measures all of it, on models
trained here.

Modules that need PyTorch (the extra ``stillwatch[protect]``) are not imported by those that do not.
"""
