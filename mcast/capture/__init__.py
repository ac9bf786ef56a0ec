"""Captures: what a file of packets says about PGM, ZMTP and RADIO/DISH; pure, no socket or clock.

``scapy_layers`` is for those who work with scapy.
"""
