//! Results as polars tables.

use polars::prelude::{Column, DataFrame, PolarsResult, df};

use crate::lab::evaluate::{ClassScores, ConfusionMatrix};
#[cfg(feature = "net")]
use crate::net::Epoch;

/// A confusion matrix as a table: a row a true class, a column a predicted one.
///
/// # Errors
/// If there is not one name a class, or two are alike.
pub fn confusion(matrix: &ConfusionMatrix, names: &[&str]) -> PolarsResult<DataFrame> {
    let mut columns = vec![Column::new("class".into(), names)];
    columns.extend(
        names
            .iter()
            .zip(matrix.counts().columns())
            .map(|(&name, column)| Column::new(name.into(), column.to_vec())),
    );
    DataFrame::new(names.len(), columns)
}

/// The scores of each class as a table.
///
/// # Errors
/// If there is not one name a class.
pub fn per_class(scores: &[ClassScores], names: &[&str]) -> PolarsResult<DataFrame> {
    let column = |score: fn(&ClassScores) -> f64| scores.iter().map(score).collect::<Vec<_>>();
    df![
        "class" => names,
        "precision" => column(|scores| scores.precision),
        "recall" => column(|scores| scores.recall),
        "f1" => column(|scores| scores.f1),
        "support" => scores.iter().map(|scores| scores.support).collect::<Vec<_>>(),
    ]
}

/// The epochs of a training as a table.
///
/// # Errors
/// None that could come of these columns.
#[cfg(feature = "net")]
pub fn epochs(history: &[Epoch]) -> PolarsResult<DataFrame> {
    let column = |figure: fn(&Epoch) -> f64| history.iter().map(figure).collect::<Vec<_>>();
    df![
        "epoch" => history.iter().map(|epoch| epoch.epoch as u32).collect::<Vec<_>>(),
        "learning rate" => column(|epoch| f64::from(epoch.learning_rate)),
        "loss" => column(|epoch| epoch.loss),
        "accuracy" => column(|epoch| epoch.train_accuracy),
        "validation loss" => column(|epoch| epoch.validation_loss),
        "validation accuracy" => column(|epoch| epoch.validation_accuracy),
        "seconds" => column(|epoch| epoch.seconds),
        "images/s" => column(|epoch| epoch.images_per_s),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_true_classes() {
        let matrix = ConfusionMatrix::new(&[0, 0, 0, 1, 1, 1].map(Some), &[0, 0, 0, 0, 1, 1], 2);
        let frame = confusion(&matrix, &["a", "b"]).unwrap();
        assert_eq!(
            frame,
            df!["class" => ["a", "b"], "a" => [3u32, 0], "b" => [1u32, 2]].unwrap()
        );
        let frame = per_class(&matrix.class_scores(), &["a", "b"]).unwrap();
        assert_eq!(
            frame.column("precision").unwrap().f64().unwrap().get(0),
            Some(1.0)
        );
        assert_eq!(
            frame.column("recall").unwrap().f64().unwrap().get(0),
            Some(0.75)
        );
        assert!(per_class(&matrix.class_scores(), &["a"]).is_err());
    }
}
