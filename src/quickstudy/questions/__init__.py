"""The questions that users ask of their data and their learners, each answered with an interval, or "cannot tell".

Does meta-learning pay here (verdict.py)? How many examples do I need (shots.py)? Are my tasks wide enough, and is
this one inside (audit.py)? Can I trust this prediction (trust.py)? What should I label next (labelling.py)? What is
wrong with my data (data_card.py)?
"""
