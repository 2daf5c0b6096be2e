"""A model with a step of its own, on JAX."""

import jax
import keras


class Guide(keras.Model):
    """A `train_step` as the guides of Keras write it for JAX."""

    def compute_loss_and_updates(self, trained, others, x, y, training=False):
        predicted, others = self.stateless_call(trained, others, x, training=training)
        return self.compute_loss(x, y, predicted), (predicted, others)

    def train_step(self, state, data):
        trained, others, optimizer, metrics = state
        x, y = data
        derive = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
        (loss, (_, others)), grads = derive(trained, others, x, y, training=True)
        trained, optimizer = self.optimizer.stateless_apply(optimizer, grads, trained)
        return {"loss": loss}, (trained, others, optimizer, metrics)
