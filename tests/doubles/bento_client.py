"""Bento's own client, as a program: it leaves a temporary folder to the garbage collector, which warns of that.

Arguments are an address and a JSON list of bodies; it prints a JSON list of answers, a refusal as text.
"""

CLIENT = """
import json, sys
import bentoml

answers = []
with bentoml.SyncHTTPClient(sys.argv[1]) as client:
    for body in json.loads(sys.argv[2]):
        try:
            answers.append(client.predict(body))
        except bentoml.exceptions.BentoMLException as refused:
            answers.append(f"{type(refused).__name__}: {refused}")
print(json.dumps(answers))
"""
