"""What fine-tuning learns from the scores of a round: advantages, losses, gradients of the reward, anchors."""
