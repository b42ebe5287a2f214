"""What people look at and call: status, report, trace, cost, charts, alerts, keys, the doctor."""
