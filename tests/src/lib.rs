//! What the tests of whole processes share: a broker started, watched and ended by pid.
