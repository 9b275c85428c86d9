"""A trained learner behind HTTP: tasks are made from examples, kept, extended and asked, by many at once.

`quickstudy serve CHECKPOINT` runs it (running.py); app.py says what is answered, desk.py does it, store.py keeps it.
Adapting and predicting are those of quickstudy.adaptation. The packages are those of the extra `serve`.
"""
