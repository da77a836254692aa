"""The DashScope dialect: video-synthesis, tasks and uploads as the hosted service's clients speak them."""
