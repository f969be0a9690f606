"""Worker processes that judge answers and can be killed: `pool` starts and limits them, `worker` and `task_worker` run in them."""
