//! The optimizer at work: AdamW and SGD, each in a single pass over a parameter.
//!
//! The naive form of AdamW's step (Loshchilov & Hutter 2019, algorithm 2), t being the number of
//! the step from 1, is one tensor operation a line:
//!
//! ```text
//! first  ← β₁·first  + (1 − β₁)·gradient          mean of the gradients
//! second ← β₂·second + (1 − β₂)·gradient²         mean of their squares
//! value  ← (1 − rate·decay)·value
//!          − rate · first/(1 − β₁ᵗ) / (√(second/(1 − β₂ᵗ)) + ε)
//! ```
//!
//! In candle that is a dozen passes over memory, and as many new tensors. Here one pass reads
//! value, gradient and moments together and writes them back in place, several threads at once. The
//! corrections 1 − βᵗ are the same for all values of a step, so they are taken out of the
//! loop: the rate is divided by 1 − β₁ᵗ once, and √(1 − β₂ᵗ) is drawn out of the
//! root.
//!
//! SGD with momentum keeps one moment: velocity ← momentum·velocity + gradient + decay·value,
//! and value ← value − rate·velocity.

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;

use super::config::Optimizer;

/// An optimizer's state in the course of a training.
#[derive(Debug)]
pub(super) struct State {
    optimizer: Optimizer,
    /// Steps taken so far.
    pub(super) steps: usize,
    /// One for each parameter, in the model's order.
    pub(super) moments: Vec<Moments>,
}

/// What an optimizer remembers of a parameter's gradients: a value for each of the parameter's.
#[derive(Debug)]
pub(super) struct Moments {
    /// AdamW: mean of the gradients. SGD: velocity.
    pub(super) first: Vec<f32>,
    /// AdamW: mean of the squared gradients. SGD: empty.
    pub(super) second: Vec<f32>,
}

impl Moments {
    /// The zeros that a training starts from.
    fn zeros(optimizer: Optimizer, count: usize) -> Self {
        // SGD has one moment. An empty second one keeps both optimizers in one type, and one format
        // of checkpoints.
        let seconds = match optimizer {
            Optimizer::AdamW { .. } => count,
            Optimizer::Sgd { .. } => 0,
        };
        Self {
            first: vec![0.0; count],
            second: vec![0.0; seconds],
        }
    }
}

impl State {
    pub(super) fn new<'a>(optimizer: Optimizer, parameters: impl Iterator<Item = &'a Var>) -> Self {
        let moments = parameters
            .map(|var| Moments::zeros(optimizer, var.elem_count()))
            .collect();
        Self {
            optimizer,
            steps: 0,
            moments,
        }
    }

    /// Moves the parameters by one step. Returns whether all of them are finite after it.
    pub(super) fn step<'a>(
        &mut self,
        parameters: impl Iterator<Item = &'a Var>,
        gradients: &GradStore,
        learning_rate: f32,
    ) -> Result<bool> {
        // Counted before the step, because the formula counts steps from 1: at 0 its corrections
        // would be divisions by zero.
        self.steps += 1;
        let rule = Rule::new(self.optimizer, self.steps, learning_rate);
        let mut all_finite = true;
        for (var, moments) in parameters.zip(&mut self.moments) {
            // The moments go with the parameters by position. A parameter that the loss does not
            // depend on has no gradient, and neither it nor its moments move.
            let Some(gradient) = gradients.get(var) else {
                continue;
            };
            let step = Step {
                rule,
                work: RefCell::new(Work {
                    moments,
                    finite: true,
                }),
            };
            // candle hands the parameter's own memory to `Step::cpu_fwd`. The loop reads the
            // gradient as a slice in the same order; candle does not promise its strides. Where it
            // is contiguous already nothing is copied.
            var.inplace_op2(&gradient.contiguous()?, &step)?;
            // All parameters are moved also if one is not finite: the training ends then anyway.
            all_finite &= step.work.into_inner().finite;
        }
        Ok(all_finite)
    }

    /// The moments as tensors, "first.NAME" and "second.NAME" for each of the parameters' `names`.
    pub(super) fn tensors(&self, names: &[String]) -> Result<Vec<(String, Tensor)>> {
        let tensor = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        let mut tensors = Vec::new();
        for (name, moments) in names.iter().zip(&self.moments) {
            tensors.push((format!("first.{name}"), tensor(&moments.first)?));
            tensors.push((format!("second.{name}"), tensor(&moments.second)?));
        }
        Ok(tensors)
    }
}

/// The optimizer's formula with all that is the same for every value of a step.
#[derive(Debug, Clone, Copy)]
enum Rule {
    AdamW(AdamW),
    Sgd(Sgd),
}

#[derive(Debug, Clone, Copy)]
struct AdamW {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    /// 1 − rate·decay.
    kept: f32,
    /// rate / (1 − β₁ᵗ).
    rate: f32,
    /// 1 / √(1 − β₂ᵗ).
    root: f32,
}

#[derive(Debug, Clone, Copy)]
struct Sgd {
    momentum: f32,
    weight_decay: f32,
    rate: f32,
}

impl Rule {
    /// The rule at step `steps`, from 1.
    fn new(optimizer: Optimizer, steps: usize, rate: f32) -> Self {
        match optimizer {
            Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                // The moments start at zero, and so are too small at first by this factor. It is
                // computed in f64, because βᵗ is close to 1 at first and the difference would
                // lose digits: 1 − 0.999 keeps three digits fewer than its terms have. The number
                // of steps is far below 2³¹.
                let correction = |beta: f32| (1.0 - f64::from(beta).powi(steps as i32)) as f32;
                Self::AdamW(AdamW {
                    beta1,
                    beta2,
                    epsilon,
                    kept: 1.0 - rate * weight_decay,
                    rate: rate / correction(beta1),
                    // Multiplying by this is dividing √second by √(1 − β₂ᵗ). The loop
                    // then has one square root and one division for each value.
                    root: correction(beta2).sqrt().recip(),
                })
            }
            Optimizer::Sgd {
                momentum,
                weight_decay,
            } => Self::Sgd(Sgd {
                momentum,
                weight_decay,
                rate,
            }),
        }
    }

    /// Moves all values of one parameter, in parallel. Returns whether they are finite after it.
    fn apply(self, values: &mut [f32], gradient: &[f32], moments: &mut Moments) -> bool {
        // All slices have the same length and are cut at the same places. Each value depends on no
        // other, so the result does not depend on the number of threads.
        let chunks = values
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(moments.first.par_chunks_mut(CHUNK));
        match self {
            Self::AdamW(rule) => chunks
                .zip(moments.second.par_chunks_mut(CHUNK))
                .map(|(((values, gradient), first), second)| {
                    // The check follows at once, while the chunk is still in the cache.
                    rule.apply(values, gradient, first, second);
                    are_finite(values)
                })
                // Every chunk is moved whatever the others say, so there is nothing to cut short.
                .reduce(|| true, |a, b| a & b),
            Self::Sgd(rule) => chunks
                .map(|((values, gradient), velocity)| {
                    rule.apply(values, gradient, velocity);
                    are_finite(values)
                })
                .reduce(|| true, |a, b| a & b),
        }
    }
}

impl AdamW {
    #[inline]
    fn apply(self, values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let Self {
            beta1,
            beta2,
            epsilon,
            kept,
            rate,
            root,
        } = self;
        let moments = first.iter_mut().zip(second);
        for ((value, &gradient), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
            // Elementwise and without a branch, so that the compiler can use whole registers. The
            // value is moved by the moments of this step, not of the one before.
            *first = beta1 * *first + (1.0 - beta1) * gradient;
            *second = beta2 * *second + (1.0 - beta2) * gradient * gradient;
            *value = kept * *value - rate * *first / (second.sqrt() * root + epsilon);
        }
    }
}

impl Sgd {
    #[inline]
    fn apply(self, values: &mut [f32], gradient: &[f32], velocity: &mut [f32]) {
        let Self {
            momentum,
            weight_decay,
            rate,
        } = self;
        for ((value, &gradient), velocity) in values.iter_mut().zip(gradient).zip(velocity) {
            // As in PyTorch, the decay is part of the gradient and passes through the velocity.
            // AdamW's does not: that is what "decoupled" means.
            *velocity = momentum * *velocity + gradient + weight_decay * *value;
            *value -= rate * *velocity;
        }
    }
}

/// One step of one parameter, as an operation of candle's.
struct Step<'a> {
    rule: Rule,
    /// candle passes the operation by shared reference; what it changes is in a cell.
    work: RefCell<Work<'a>>,
}

/// What a step changes besides the parameter.
struct Work<'a> {
    moments: &'a mut Moments,
    /// Whether the parameter is finite after the step.
    finite: bool,
}

/// Values that a thread moves at a time: 64 KiB of each slice, 256 KiB for AdamW's four. Smaller
/// chunks cost more scheduling; larger ones leave threads idle at the end of a layer. The largest
/// layer, fc1 of the CNN with 401,408 weights, is 25 chunks.
const CHUNK: usize = 1 << 14;

impl InplaceOp2 for Step<'_> {
    fn name(&self) -> &'static str {
        "optimizer step"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        parameter_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<()> {
        // Parameters and gradients are made contiguous and f32 by this crate. These are errors, not
        // panics, because candle's types do not promise it.
        let Some((start, end)) = parameter_layout.contiguous_offsets() else {
            bail!("a parameter is not contiguous");
        };
        let Some((from, to)) = gradient_layout.contiguous_offsets() else {
            bail!("a gradient is not contiguous");
        };
        let CpuStorage::F32(values) = parameter else {
            bail!("a parameter is not f32");
        };
        let Ok(mut work) = self.work.try_borrow_mut() else {
            bail!("an optimizer step was applied within itself");
        };
        // The storage can be larger than the tensor, so that the offsets must be applied.
        let values = &mut values[start..end];
        let gradient = &gradient.as_slice::<f32>()?[from..to];
        work.finite = self.rule.apply(values, gradient, work.moments);
        Ok(())
    }
}

/// Whether all values are finite, without a branch for each.
///
/// Zero times a finite number is zero, and zero times any other is NaN. So the sum of the products
/// is zero only if all values are finite. (The sign of a zero does not matter: −0 equals 0. The
/// compiler keeps the product, which for floats is not always zero.) Eight sums at once fill a
/// vector register.
fn are_finite(values: &[f32]) -> bool {
    let mut sums = [0.0f32; 8];
    // A sum that is NaN once stays NaN, so one look at the end is enough.
    let mut chunks = values.chunks_exact(8);
    for chunk in &mut chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * 0.0;
        }
    }
    let rest = chunks.remainder();
    sums.iter().all(|&sum| sum == 0.0) && rest.iter().all(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_that_is_not_finite_is_noticed_wherever_it_is() {
        for count in [1, 7, 8, 9, 40, 43] {
            assert!(are_finite(&vec![-1e38; count]));
            for place in 0..count {
                for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = vec![1.0; count];
                    values[place] = value;
                    assert!(!are_finite(&values), "{value} at {place} of {count}");
                }
            }
        }
    }

    #[test]
    fn a_step_of_adamw_is_the_papers_formula() {
        let (rate, beta1, beta2, epsilon, weight_decay) = (1e-2, 0.9, 0.999, 1e-8, 0.01);
        let optimizer = Optimizer::AdamW {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        };
        let mut moments = Moments::zeros(optimizer, 1);
        let mut values = [0.5f32];
        // The oracle, in f64.
        let (mut first, mut second, mut expected) = (0.0f64, 0.0f64, 0.5f64);
        let [b1, b2] = [beta1, beta2].map(f64::from);
        let decay = f64::from(rate) * f64::from(weight_decay);
        for (step, gradient) in (1..).zip([0.3f32, -0.1, 0.7]) {
            let finite =
                Rule::new(optimizer, step, rate).apply(&mut values, &[gradient], &mut moments);
            assert!(finite);
            let gradient = f64::from(gradient);
            first = b1 * first + (1.0 - b1) * gradient;
            second = b2 * second + (1.0 - b2) * gradient * gradient;
            let mean = first / (1.0 - b1.powi(step as i32));
            let square = second / (1.0 - b2.powi(step as i32));
            expected = expected * (1.0 - decay)
                - f64::from(rate) * mean / (square.sqrt() + f64::from(epsilon));
            assert!(
                (f64::from(values[0]) - expected).abs() < 1e-5,
                "step {step}"
            );
        }
    }
}
