//! The choice of one token from its scores.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::settings::Generation;

/// One random source per prompt: samples do not depend on the other prompts in the batch.
pub fn randoms(prompts: usize, settings: &Generation) -> Vec<StdRng> {
    let seeds = (0..prompts as u64).map(|index| settings.seed.wrapping_add(index));
    seeds.map(StdRng::seed_from_u64).collect()
}

/// The next token: the most likely one at temperature 0; otherwise sampled after applying temperature, top-k and top-p
/// (nucleus sampling, arXiv 1904.09751), in that order. `scores`: one logit per token.
pub fn choose(settings: &Generation, scores: &[f32], random: &mut StdRng) -> u32 {
    if settings.temperature == 0.0 {
        return likeliest(scores);
    }
    let largest = scores[likeliest(scores) as usize];
    let weight = |score: f32| (f64::from(score - largest) / settings.temperature).exp();
    let weights = scores.iter().map(|score| weight(*score));
    let mut kept: Vec<(u32, f64)> = (0..).zip(weights).collect();
    let descending = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1);
    if settings.top_k > 0 && settings.top_k < kept.len() {
        kept.select_nth_unstable_by(settings.top_k - 1, descending);
        kept.truncate(settings.top_k);
    }
    if settings.top_p < 1.0 {
        nucleus(&mut kept, settings.top_p);
    }
    let mut left = random.random::<f64>() * kept.iter().map(|(_, weight)| weight).sum::<f64>();
    for (token, weight) in &kept {
        left -= weight;
        if left < 0.0 {
            return *token;
        }
    }
    kept[kept.len() - 1].0
}

/// Keeps the most likely tokens: the first one, and further ones as long as the tokens before them have less than
/// `top_p` of the total probability.
fn nucleus(kept: &mut Vec<(u32, f64)>, top_p: f64) {
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    // All tokens below this value together have less than 1 - top_p, so most of a large vocabulary need not be sorted.
    let least = (1.0 - top_p) * total / kept.len() as f64;
    kept.retain(|(_, weight)| *weight >= least);
    kept.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut before = 0.0;
    let count = kept.iter().take_while(|(_, weight)| {
        let stays = before < top_p * total;
        before += weight;
        stays
    });
    let count = count.count().max(1);
    kept.truncate(count);
}

/// The token with the largest score; the first one in case of ties.
pub fn likeliest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (token, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = token;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(settings: Generation, token: u32) -> f64 {
        let mut random = StdRng::seed_from_u64(7);
        let scores = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln);
        let hits = (0..4000).filter(|_| choose(&settings, &scores, &mut random) == token);
        hits.count() as f64 / 4000.0
    }

    #[test]
    fn draws_follow_temperature_top_k_and_top_p() {
        let base = Generation {
            temperature: 1.0,
            ..Generation::default()
        };
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 0.03, "{found} {expected}");
        near(share(base.clone(), 0), 0.5);
        near(share(base.clone(), 3), 0.125);
        // Squared probabilities: 1/4, 1/16, 1/64, 1/64.
        let cold = Generation {
            temperature: 0.5,
            ..base.clone()
        };
        near(share(cold, 0), 16.0 / 22.0);
        let two = Generation {
            top_k: 2,
            ..base.clone()
        };
        near(share(two.clone(), 0), 2.0 / 3.0);
        near(share(two, 2), 0.0);
        let nucleus = Generation {
            top_p: 0.6,
            ..base.clone()
        };
        near(share(nucleus.clone(), 1), 1.0 / 3.0);
        near(share(nucleus, 2), 0.0);
        near(share(Generation { top_p: 0.01, ..base }, 0), 1.0);
        near(share(Generation::default(), 0), 1.0);
    }
}
