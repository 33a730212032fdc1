"""`reproduce verdicts`: the claims of four papers, and what the evidence on record says of each.

claims      what a paper claims, as data: printed numbers, rule, command, judge
rules       the four verdicts, and the rules that several claims share
evidence    the files that judged commands have left
games           judges of games
trained         judges of trained systems by their returns
finished        judges of what finished policies do
costs           judges of costs
page        docs/verdicts.md
"""
