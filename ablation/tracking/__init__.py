"""The store of recorded studies, and the only room that knows MLflow. `running.recorder` decides what is written into it."""
