"""A model with a step of its own, on PyTorch."""

import keras
import torch


class Guide(keras.Model):
    """A `train_step` as the guides of Keras write it for PyTorch."""

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        predicted = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=predicted)
        loss.backward()
        weights = [*self.trainable_weights]
        gradients = [one.value.grad for one in weights]
        with torch.no_grad():
            self.optimizer.apply(gradients, weights)
        return {"loss": loss.detach()}
