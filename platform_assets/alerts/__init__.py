"""Alerts: record each once, record the end of its episode, and send both to Alertmanager."""
