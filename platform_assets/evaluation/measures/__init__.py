"""How well a model answers, and what its answers promise: one module per kind of task, which `of_task` finds.

Every kind answers with a distribution, so every model can be tested against its own answers: losses are negative log
likelihoods in nats, and entropies are the losses the model expects.
"""
