//! AdamW and SGD, each a single pass over parameters, gradients and moments, and the learning rate's schedule.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

use super::{NetError, check};

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019), in the form that PyTorch has it.
    AdamW {
        /// Decay of the mean of the gradients.
        beta1: f32,
        /// Decay of the mean of their squares.
        beta2: f32,
        /// Added to the denominator.
        epsilon: f32,
        /// Share of the learning rate by which parameters shrink at each step.
        weight_decay: f32,
    },
    /// Stochastic gradient descent with momentum.
    Sgd {
        /// Decay of the velocity; 0 for none.
        momentum: f32,
        /// Added to the gradient, times the parameters (L2 penalty).
        weight_decay: f32,
    },
}

impl Default for Optimizer {
    /// AdamW with PyTorch's defaults.
    fn default() -> Self {
        Self::AdamW {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
        }
    }
}

impl Optimizer {
    pub(super) fn validate(&self) -> std::result::Result<(), NetError> {
        let share =
            |name, value: f32| check(name, (0.0..1.0).contains(&value), "0 to below 1", value);
        let penalty = |value: f32| {
            check(
                "weight_decay",
                (0.0..1e3).contains(&value),
                "0 or a little more",
                value,
            )
        };
        match *self {
            Self::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                share("beta1", beta1)?;
                share("beta2", beta2)?;
                check(
                    "epsilon",
                    epsilon > 0.0 && epsilon.is_finite(),
                    "above 0",
                    epsilon,
                )?;
                penalty(weight_decay)
            }
            Self::Sgd {
                momentum,
                weight_decay,
            } => {
                share("momentum", momentum)?;
                penalty(weight_decay)
            }
        }
    }
}

/// How the learning rate goes over the steps of a training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The same at every step.
    Constant,
    /// Half a cosine from the full rate down to zero (Loshchilov & Hutter 2017, without restarts).
    Cosine,
    /// Up from 1/25 over the first `warmup` share of the steps, then down to zero, both as half a cosine
    /// (Smith & Topin 2018, "Super-convergence").
    OneCycle {
        /// Share of the steps on the way up, 0 to below 1.
        warmup: f32,
    },
}

impl Schedule {
    pub(super) fn validate(&self) -> std::result::Result<(), NetError> {
        match *self {
            Self::OneCycle { warmup } => check(
                "warmup",
                (0.0..1.0).contains(&warmup),
                "0 to below 1",
                warmup,
            ),
            Self::Constant | Self::Cosine => Ok(()),
        }
    }

    /// The learning rate at step `step` of `steps`, as a share of the full one.
    #[must_use]
    pub fn factor(&self, step: usize, steps: usize) -> f32 {
        // From 1 at 0 to 0 at 1.
        let fall = |at: f64| (1.0 + (std::f64::consts::PI * at).cos()) / 2.0;
        let at = step as f64 / steps.max(1) as f64;
        let factor = match *self {
            Self::Constant => 1.0,
            Self::Cosine => fall(at),
            Self::OneCycle { warmup } => {
                let warmup = f64::from(warmup);
                if at < warmup {
                    1.0 - (1.0 - 1.0 / 25.0) * fall(at / warmup)
                } else {
                    fall((at - warmup) / (1.0 - warmup))
                }
            }
        };
        factor as f32
    }
}

/// An optimizer at work: its moments and the number of steps taken.
#[derive(Debug)]
pub(super) struct State {
    optimizer: Optimizer,
    pub(super) steps: usize,
    /// For each parameter: mean and mean square of the gradients, or the velocity and nothing.
    pub(super) moments: Vec<(Vec<f32>, Vec<f32>)>,
}

impl State {
    pub(super) fn new<'a>(optimizer: Optimizer, parameters: impl Iterator<Item = &'a Var>) -> Self {
        let moments = parameters
            .map(|var| {
                let count = var.elem_count();
                match optimizer {
                    Optimizer::AdamW { .. } => (vec![0.0; count], vec![0.0; count]),
                    Optimizer::Sgd { .. } => (vec![0.0; count], Vec::new()),
                }
            })
            .collect();
        Self {
            optimizer,
            steps: 0,
            moments,
        }
    }

    /// Moves the parameters by one step. Whether all of them are finite after it.
    pub(super) fn step<'a>(
        &mut self,
        parameters: impl Iterator<Item = &'a Var>,
        gradients: &GradStore,
        learning_rate: f32,
    ) -> Result<bool> {
        self.steps += 1;
        let mut finite = true;
        for (var, (first, second)) in parameters.zip(&mut self.moments) {
            let Some(gradient) = gradients.get(var) else {
                continue;
            };
            let step = Step {
                optimizer: self.optimizer,
                steps: self.steps,
                learning_rate,
                state: Mutex::new((first, second, true)),
            };
            var.inplace_op2(&gradient.contiguous()?, &step)?;
            finite &= step.state.into_inner().expect("no thread panicked").2;
        }
        Ok(finite)
    }

    /// The moments as tensors, named after `names`.
    pub(super) fn tensors(&self, names: &[String]) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        for (name, (first, second)) in names.iter().zip(&self.moments) {
            tensors.push((
                format!("first.{name}"),
                Tensor::from_slice(first, first.len(), &Device::Cpu)?,
            ));
            tensors.push((
                format!("second.{name}"),
                Tensor::from_slice(second, second.len(), &Device::Cpu)?,
            ));
        }
        Ok(tensors)
    }
}

/// One step of one parameter, in place.
struct Step<'a> {
    optimizer: Optimizer,
    steps: usize,
    learning_rate: f32,
    /// The two moments, and whether the parameter was finite after the step.
    state: Mutex<(&'a mut Vec<f32>, &'a mut Vec<f32>, bool)>,
}

/// Parameters that a thread moves at a time.
const CHUNK: usize = 1 << 14;

impl InplaceOp2 for Step<'_> {
    fn name(&self) -> &'static str {
        "optimizer step"
    }

    fn cpu_fwd(
        &self,
        var: &mut CpuStorage,
        var_layout: &Layout,
        gradient: &CpuStorage,
        layout: &Layout,
    ) -> Result<()> {
        let (Some((start, end)), Some((from, to))) =
            (var_layout.contiguous_offsets(), layout.contiguous_offsets())
        else {
            bail!("a parameter or its gradient is not contiguous");
        };
        let CpuStorage::F32(values) = var else {
            bail!("a parameter is not f32")
        };
        let (values, gradient) = (
            &mut values[start..end],
            &gradient.as_slice::<f32>()?[from..to],
        );
        let mut state = self.state.lock().expect("no thread panicked");
        let (first, second, finite) = &mut *state;
        let rate = self.learning_rate;
        let values = values
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK));
        *finite = match self.optimizer {
            Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                let correction = |beta: f32| (1.0 - f64::from(beta).powi(self.steps as i32)) as f32;
                let (size, root) = (rate / correction(beta1), correction(beta2).sqrt().recip());
                let kept = 1.0 - rate * weight_decay;
                values
                    .zip(second.par_chunks_mut(CHUNK))
                    .map(|(((values, gradient), first), second)| {
                        let moments = first.iter_mut().zip(second);
                        for ((value, &gradient), (first, second)) in
                            values.iter_mut().zip(gradient).zip(moments)
                        {
                            *first = beta1 * *first + (1.0 - beta1) * gradient;
                            *second = beta2 * *second + (1.0 - beta2) * gradient * gradient;
                            *value =
                                kept * *value - size * *first / (second.sqrt() * root + epsilon);
                        }
                        are_finite(values)
                    })
                    .reduce(|| true, |a, b| a & b)
            }
            Optimizer::Sgd {
                momentum,
                weight_decay,
            } => values
                .map(|((values, gradient), velocity)| {
                    for ((value, &gradient), velocity) in
                        values.iter_mut().zip(gradient).zip(velocity)
                    {
                        *velocity = momentum * *velocity + gradient + weight_decay * *value;
                        *value -= rate * *velocity;
                    }
                    are_finite(values)
                })
                .reduce(|| true, |a, b| a & b),
        };
        Ok(())
    }
}

/// Zero times a finite number is zero; times any other, NaN. So one sum says it, without a branch for each value.
fn are_finite(values: &[f32]) -> bool {
    let mut sums = [0.0f32; 8];
    let mut chunks = values.chunks_exact(8);
    for chunk in &mut chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * 0.0;
        }
    }
    sums.iter().all(|&sum| sum == 0.0) && chunks.remainder().iter().all(|value| value.is_finite())
}
