"""`--import` of this file registers the two small systems of pair.py."""

import pair

import jaxomarl

jaxomarl.register_system("weighted", pair.WEIGHTED)
jaxomarl.register_system("clone", pair.CLONE)
