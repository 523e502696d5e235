//! Places of the panels: the first wide and high, the others in a grid below it.

use super::axis::y_ticks;
use super::figure::Figure;
use super::number::Quantity;
use super::range::{Range, y_range};
use super::svg::Area;
use super::text::width;
use super::ticks::Tick;

/// Free space around a picture, in pixels.
pub(super) const MARGIN: f64 = 24.0;
/// Font size of ticks, in pixels.
pub(super) const TICK_SIZE: f64 = 11.5;
const TITLE_HEIGHT: f64 = 26.0;
const X_LABELS_HEIGHT: f64 = 38.0;
const LANE_HEIGHT: f64 = 18.0;
const ROW_GAP: f64 = 14.0;
const COLUMN_GAP: f64 = 36.0;

/// Size of a picture in pixels. Without a height it is as high as suits its panels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    pub width: f64,
    pub height: Option<f64>,
}

/// A panel's place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// Left end of the panel's title.
    pub left: f64,
    /// Baseline of the panel's title.
    pub title_y: f64,
    /// Middle of the lane of marks, in the first panel.
    pub lane_y: Option<f64>,
    pub plot: Area,
    pub has_x_labels: bool,
    pub y: Range,
    pub y_ticks: Vec<Tick>,
}

pub(super) struct Layout {
    pub places: Vec<Place>,
    pub height: f64,
}

/// Cell of a grid: its row, its first column, and how many it spans.
#[derive(Clone, Copy)]
struct Cell {
    row: usize,
    column: usize,
    span: usize,
}

impl Layout {
    /// Places every panel of `figure` below `top` pixels.
    pub fn new(figure: &Figure, size: Size, top: f64) -> Self {
        let count = figure.panels.len();
        let (cells, columns) = cells(count, size.width);
        let rows = cells.iter().map(|cell| cell.row + 1).max().unwrap_or(0);
        let has_x_labels = x_labels(&cells);
        let lane = if figure.marks.is_empty() {
            0.0
        } else {
            LANE_HEIGHT
        };
        let fixed: Vec<f64> = (0..rows)
            .map(|row| {
                let mut of_row = cells.iter().zip(&has_x_labels);
                let labels = of_row.any(|(cell, &labels)| cell.row == row && labels);
                let lane = if row == 0 { lane } else { 0.0 };
                TITLE_HEIGHT + if labels { X_LABELS_HEIGHT } else { 0.0 } + lane
            })
            .collect();
        let gaps = ROW_GAP * rows.saturating_sub(1) as f64;
        let (first, others) = natural_heights(columns, count);
        let natural = first + others * rows.saturating_sub(1) as f64;
        let around = top + fixed.iter().sum::<f64>() + gaps + MARGIN;
        let height = size.height.unwrap_or(around + natural);
        let stretch = ((height - around) / natural).max(0.2);
        let plot_height = |row: usize| stretch * if row == 0 { first } else { others };

        let column_width =
            (size.width - 2.0 * MARGIN - COLUMN_GAP * (columns - 1) as f64) / columns as f64;
        let ranges: Vec<Range> = figure.panels.iter().map(y_range).collect();
        let y_ticks: Vec<Vec<Tick>> = (0..count)
            .map(|i| y_ticks(&figure.panels[i], ranges[i], plot_height(cells[i].row)))
            .collect();
        let gutter = |column: usize| {
            let labels = (0..count)
                .filter(|&i| cells[i].column == column)
                .flat_map(|i| &y_ticks[i]);
            labels
                .map(|tick| width(&tick.label, TICK_SIZE))
                .fold(14.0, f64::max)
                + 10.0
        };
        let gutters: Vec<f64> = (0..columns).map(gutter).collect();
        let mut row_top = top;
        let mut places = Vec::new();
        for (row, fixed_height) in fixed.iter().enumerate() {
            for (i, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.row == row) {
                let left = MARGIN + cell.column as f64 * (column_width + COLUMN_GAP);
                let right =
                    left + column_width * cell.span as f64 + COLUMN_GAP * (cell.span - 1) as f64;
                let lane = if row == 0 { lane } else { 0.0 };
                let plot = Area {
                    left: left + gutters[cell.column],
                    top: row_top + TITLE_HEIGHT + lane,
                    width: (right - left - gutters[cell.column]).max(40.0),
                    height: plot_height(row),
                };
                places.push(Place {
                    left,
                    title_y: row_top + 14.0,
                    lane_y: (lane > 0.0 && i == 0)
                        .then_some(row_top + TITLE_HEIGHT + lane / 2.0 - 3.0),
                    plot,
                    has_x_labels: has_x_labels[i],
                    y: ranges[i],
                    y_ticks: y_ticks[i].clone(),
                });
            }
            row_top += fixed_height + plot_height(row) + ROW_GAP;
        }
        Self { places, height }
    }
}

/// Cells with the numbers of the x axis: the wide one, and the lowest of each column.
fn x_labels(cells: &[Cell]) -> Vec<bool> {
    let is_lowest = |cell: &Cell| {
        let mut others = cells.iter().filter(|other| other.column == cell.column);
        !others.any(|other| other.row > cell.row)
    };
    let has = cells.iter().map(|cell| cell.span > 1 || is_lowest(cell));
    has.collect()
}

/// Heights of the plot in the first row and in the others, where nobody asks for a height.
fn natural_heights(columns: usize, panels: usize) -> (f64, f64) {
    match (columns, panels) {
        (_, 1) => (420.0, 0.0),
        (1, _) => (300.0, 130.0),
        _ => (360.0, 140.0),
    }
}

/// Cells of `count` panels, and the number of columns.
fn cells(count: usize, width: f64) -> (Vec<Cell>, usize) {
    let columns = match count.saturating_sub(1) {
        _ if width < 720.0 => 1,
        0 | 1 => 1,
        3 if width >= 1_000.0 => 3,
        _ => 2,
    };
    let cell = |index: usize| match index {
        0 => Cell {
            row: 0,
            column: 0,
            span: columns,
        },
        _ => Cell {
            row: 1 + (index - 1) / columns,
            column: (index - 1) % columns,
            span: 1,
        },
    };
    ((0..count).map(cell).collect(), columns)
}

/// Number of ticks that an axis of a length, in pixels, has room for.
pub(super) fn room_for_ticks(length: f64, quantity: Quantity, is_x: bool) -> usize {
    let each = match (is_x, quantity) {
        (true, Quantity::Steps | Quantity::Tokens) => 110.0,
        (true, _) => 80.0,
        (false, _) if length > 200.0 => 52.0,
        (false, _) => 36.0,
    };
    ((length / each) as usize).clamp(2, 10)
}
