//! Random workloads against a model of one node: every answer is one that the model allows.
//!
//! `TIDELOG_SEED=<number> TIDELOG_STEPS=<number>` plays one workload, long or short.

mod batches;
mod codes;
mod fetch;
mod log;
mod places;
mod producers;
mod session;
mod settings;
mod step;
mod world;

use std::{env, panic};

use tidelog_tests::{
    node::Options,
    seed::{self, Random},
};

use self::{step::Step, world::World};

/// Steps of a workload that nobody asked to be longer.
const STEPS: u64 = 500;

#[test]
fn whatever_a_node_answers_is_what_the_model_allows() {
    play(Options::default().small_bounds(), &[1, 2]);
}

#[test]
fn whatever_a_node_answers_across_power_losses_is_what_the_model_allows() {
    play(Options::default().small_bounds().held(), &[3, 4]);
}

fn play(options: Options, seeds: &[u64]) {
    let asked = seed::asked();
    let steps = env::var("TIDELOG_STEPS").map_or(STEPS, |text| text.parse().expect("a number"));
    for seed in asked.map_or_else(|| seeds.to_vec(), |seed| vec![seed]) {
        let mut world = World::new(options.clone().expect_torn_tails());
        for number in 0..steps {
            // Chance of its own for each step: what one of them draws changes no other.
            let mut random = Random::from_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let step = Step::choose(&mut random, &world);
            let played = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                world.play(&step, &mut random);
            }));
            if let Err(failure) = played {
                let before: Vec<_> = world.played.iter().rev().take(12).collect();
                eprintln!("TIDELOG_SEED={seed} failed at step {number}: {step:?}");
                eprintln!("before it, the latest first: {before:#?}");
                panic::resume_unwind(failure);
            }
            world.played.push(step);
        }
        world.read_everything();
        eprintln!("TIDELOG_SEED={seed}: {}", world.summary());
    }
}
