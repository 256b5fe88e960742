//! A frame with axes that fits any width: the drawing stretches, its words do not.

use maud::{Markup, html};

use super::scale::{Scale, percent};

/// Length of both sides of the drawing, in its own units.
const SIDE: f64 = 1000.0;
/// Ticks of an axis.
const TICKS: usize = 4;

/// A frame.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    /// What is to be seen, for those who cannot.
    pub(super) description: &'a str,
    pub(super) x: Axis,
    pub(super) y: Axis,
}

/// One of its axes.
#[derive(Debug)]
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) words: fn(f64) -> String,
}

/// One line in it.
#[derive(Debug)]
pub(super) struct Line {
    /// Its look: `run-0`, `limit`.
    pub(super) class: String,
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

impl Plot<'_> {
    /// The frame with lines in it; of points that are no numbers, none is drawn.
    pub(super) fn lines(&self, lines: &[Line]) -> Markup {
        let (x_ticks, y_ticks) = (self.x.scale.ticks(TICKS), self.y.scale.ticks(TICKS));
        html! {
            div.frame {
                div.y aria-hidden="true" {
                    @for tick in &y_ticks {
                        span style=(format!("bottom:{}", self.y.scale.percent(*tick))) {
                            ((self.y.words)(*tick))
                        }
                    }
                }
                svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img"
                    aria-label=(format!("{}: {}", self.title, self.description)) {
                    title { (self.title) ": " (self.description) }
                    @for tick in &y_ticks {
                        @let y = place(1.0 - self.y.scale.at(*tick));
                        line.grid x1="0" x2="1000" y1=(y) y2=(y) {}
                    }
                    @for line in lines {
                        path class=(format!("line {}", line.class)) d=(self.path(&line.points)) {
                            title { (line.name) }
                        }
                    }
                }
                div.x aria-hidden="true" {
                    @for tick in &x_ticks {
                        span style=(format!("left:{}", percent(self.x.scale.at(*tick)))) {
                            ((self.x.words)(*tick))
                        }
                    }
                }
            }
        }
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        let drawn = points
            .iter()
            .filter(|(x, y)| x.is_finite() && y.is_finite());
        for (index, &(x, y)) in drawn.enumerate() {
            let step = if index == 0 { 'M' } else { 'L' };
            let (x, y) = (place(self.x.scale.at(x)), place(1.0 - self.y.scale.at(y)));
            path.push_str(&format!("{step}{x} {y}"));
        }
        path
    }
}

fn place(share: f64) -> String {
    format!("{:.1}", share * SIDE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plot() -> Plot<'static> {
        Plot {
            title: "t",
            description: "d",
            x: Axis {
                scale: Scale::from_zero(10.0),
                words: |x| format!("{x}"),
            },
            y: Axis {
                scale: Scale::from_zero(2.0),
                words: |y| format!("{y}"),
            },
        }
    }

    #[test]
    fn the_upper_value_is_at_the_top() {
        let path = plot().path(&[(0.0, 2.0), (5.0, 1.0), (10.0, 0.0)]);
        assert_eq!(path, "M0.0 0.0L500.0 500.0L1000.0 1000.0");
        assert_eq!(plot().path(&[(f64::NAN, 1.0)]), "");
    }

    proptest! {
        #[test]
        fn no_line_leaves_the_frame(points in proptest::collection::vec(any::<(f64, f64)>(), 0..20)) {
            let path = plot().path(&points);
            for number in path.split(['M', 'L', ' ']).filter(|part| !part.is_empty()) {
                let number: f64 = number.parse().unwrap();
                prop_assert!((0.0..=1000.0).contains(&number), "{path}");
            }
        }
    }
}
