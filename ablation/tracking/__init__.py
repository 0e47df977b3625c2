"""The store of what is recorded, and the only room that knows MLflow. What is written into it, `running.recorder` decides."""
