"""Kills runs at named and at random instants, and checks what is left afterwards."""
