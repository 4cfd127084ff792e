"""Tests of the simulation, and the seeds that run on every change."""
