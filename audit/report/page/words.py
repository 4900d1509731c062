"""The words that the page's scripts write: they hold none of their own."""

from __future__ import annotations

from audit.report.language import Language
from audit.report.phrases import evidence_name, family_name, reason_name

# As in the samples' column reason.
_REASONS = ("object", "background", "both", "neither")
_FAMILIES = ("dataset", "box", "estimated", "component", "ellipse", "rembg")


def words(language: Language) -> dict[str, str]:
    """Every text of the scripts in ``audit/report/static``, by its key.

    Args:
        language: Of the page.

    Returns:
        Messages; where a value goes stands its name in braces, which the script fills in.

    Example:
        >>> from audit.report.language import load_language
        >>> words(load_language("en"))["interval"]
        '{low} to {high}'
    """
    return {
        **_general(language),
        **_pictures(language),
        **_sample(language),
        **_gallery(language),
        **_classes(language),
        **_class(language),
        **_findings(language),
    }


def _general(language: Language) -> dict[str, str]:
    return {
        "percent": language.text("{number}%"),
        "interval": language.text("{low} to {high}"),
        "interval_95": language.text("95% interval {interval}"),
        "interval_head": language.text("95% interval"),
        "close": language.text("Close"),
        "previous": language.text("Previous image"),
        "next": language.text("Next image"),
        "place": language.text("{at} of {of}"),
        "filters_classes": language.text("Filters of classes"),
        "filters_images": language.text("Filters of images"),
        "reset": language.text("Reset"),
        "image": language.text("Image"),
        "images": language.text("Images"),
        "class": language.text("Class"),
        "label": language.text("Label"),
        "predicted": language.text("Predicted"),
        "accuracy": language.text("Accuracy"),
        "masks": language.text("Masks"),
        "examples": language.text("Examples"),
        "no_label": language.text("no label"),
        **{f"family_{name}": family_name(language, name) for name in _FAMILIES},
        **{f"reason_short_{name}": reason_name(language, name) for name in _REASONS},
        **{f"by_{name}": evidence_name(language, name) for name in ("pixels", "contributions")},
    }


def _pictures(language: Language) -> dict[str, str]:
    return {
        "picture_controls": language.text("How pictures are drawn"),
        "heatmap": language.text("Heatmap"),
        "outline": language.text("Object outline"),
        "outline_estimated": language.text("Outline of the estimated object"),
        "opacity": language.text("Strength of the heatmap"),
        "colours": language.text("Colours"),
        "colours_jet": language.text("Jet"),
        "colours_viridis": language.text("Viridis (colour-blind safe)"),
        "colours_cividis": language.text("Cividis (colour-blind safe)"),
        "colours_inferno": language.text("Inferno (colour-blind safe)"),
        "legend_low": language.text("no evidence"),
        "legend_high": language.text("strongest"),
        "legend_alt": language.text("Scale of colours from no evidence to the strongest"),
        "no_picture": language.text("No picture on this page"),
        "alt_sample": language.text("Image {id}"),
        "alt_heat": language.text("Image {id} under its heatmap, with the object's outline"),
        "tile_label": language.text("Label"),
        "tile_predicted": language.text("Model"),
        "tile_share": language.text("{share} on background"),
    }


def _sample(language: Language) -> dict[str, str]:
    return {
        "as_shown": language.text("As the model sees it"),
        "heat_predicted": language.text("Where the evidence for the predicted class lies"),
        "heat_label": language.text("Where the evidence for the labelled class lies"),
        "said_right": language.text(
            "The label is {label}, and the model says so: probability {confidence}."
        ),
        "said_wrong": language.text(
            "The label is {label}; the model says {predicted}, probability {confidence}."
        ),
        "said_unlabelled": language.text("The model says {predicted}, probability {confidence}."),
        "reason_object": language.text(
            "In the model's features the object points to the explained class, the background does "
            "not."
        ),
        "reason_background": language.text(
            "In the model's features the background points to the explained class, the object does "
            "not."
        ),
        "reason_both": language.text(
            "In the model's features object and background each point to the explained class."
        ),
        "reason_neither": language.text(
            "In the model's features neither the object nor the background points to the explained "
            "class by itself."
        ),
        "reason_unknown": language.text(
            "What decides could not be told for this image (status: {status})."
        ),
        "all_numbers": language.text("All numbers of this image"),
        "number": language.text("Number"),
        "value": language.text("Value"),
        "column": language.text("Column"),
        "sample_confidence": language.text("Probability of the predicted class"),
        "sample_confidence_note": language.text("How sure the model says it is"),
        "sample_p_label": language.text("Probability of the label"),
        "sample_p_label_note": language.text("What the model gives the labelled class"),
        "sample_background_share": language.text("Heatmap on background"),
        "sample_background_share_note": language.text("Share of the evidence outside the object"),
        "sample_transplant_rate": language.text("Transplant rate"),
        "sample_transplant_rate_note": language.text(
            "How often this background, behind other objects, gives the same answer; in features"
        ),
        "sample_object_logit": language.text("Evidence from the object"),
        "sample_object_logit_note": language.text(
            "In logits; above 0 speaks for the class, below 0 against it"
        ),
        "sample_near_logit": language.text("Evidence from just around the object"),
        "sample_near_logit_note": language.text("In logits; within one cell of the heatmap"),
        "sample_far_logit": language.text("Evidence from the background further away"),
        "sample_far_logit_note": language.text("In logits"),
        "sample_object_area": language.text("Size of the object"),
        "sample_object_area_note": language.text("Its share of the image"),
        "sample_mask_confidence": language.text("Confidence of the object mask"),
        "sample_mask_confidence_note": language.text(
            "Overlap with the object to be expected; for estimated masks only"
        ),
        "sample_id": language.text("Image's name in the tables"),
        "sample_index": language.text("Its place in the split"),
        "not_here": language.text(
            "The page shows {shown} of {n} images; if this one is among the others, Python has it:"
        ),
        "get_row": language.text("Get this row in Python"),
        "get_row_note": language.text("After run = audit.load_run(…) of this run's folder."),
        "copy": language.text("Copy"),
        "copied": language.text("Copied."),
        "copy_failed": language.text("Not allowed here; select the line and copy it."),
    }


def _gallery(language: Language) -> dict[str, str]:
    return {
        "filter_class": language.text("Class name contains"),
        "any_class": language.text("any class"),
        "filter_side": language.text("Class is"),
        "side_either": language.text("label or prediction"),
        "side_label": language.text("the label"),
        "side_predicted": language.text("the prediction"),
        "filter_flag": language.text("Flag"),
        "flag_any": language.text("any flag"),
        "flag_option": language.text("{name} ({shown} of {total})"),
        "flag_all": language.text("all pictures of this page"),
        "filter_reason": language.text("What decides"),
        "reason_any": language.text("anything"),
        "filter_least": language.text("Confidence at least, %"),
        "filter_share": language.text("Heatmap on background, %"),
        "filter_from": language.text("Heatmap on background, at least, %"),
        "filter_to": language.text("Heatmap on background, at most, %"),
        "filter_order": language.text("Order"),
        "order_telling": language.text("most telling"),
        "order_background_share": language.text("most heatmap on background"),
        "order_transplant_rate": language.text("highest transplant rate"),
        "order_far_logit": language.text("most evidence far from the object"),
        "order_confidence": language.text("most confident answer"),
        "order_p_label": language.text("least probable label"),
        "order_mask_confidence": language.text("least confident mask"),
        "order_index": language.text("order of the split"),
        "gallery_count": language.text(
            "{n} of the {of} images on this page; all {all} are in {file}."
        ),
        "gallery_none": language.text(
            "None of the {of} images on this page; all {all} are in {file}."
        ),
        "more": language.text("Show {n} more"),
    }


def _classes(language: Language) -> dict[str, str]:
    return {
        "classes_caption": language.text("All classes with their verdicts"),
        "classes_count": language.text("{n} of {of} classes"),
        "class_filter": language.text("Find a class"),
        "class_name": language.text("name"),
        "verdict": language.text("Verdict"),
        "verdict_any": language.text("any verdict"),
        "option_count": language.text("{name} ({n})"),
        "moves": language.text("Background moves answers"),
        "moves_note": language.text(
            "How many more of 100 answers become this class in front of its backgrounds than in "
            "front of others; in pixels"
        ),
        "tested": language.text("Tested images"),
        "tested_note": language.text("Images of this class that were edited in pixels"),
        "accuracy_note": language.text("Share of right answers on the images as they are"),
        "decides": language.text("Background decides alone"),
        "decides_note": language.text(
            "Share of tested images whose background wins against at least five of six objects"
        ),
        "background_alone": language.text("Right without the object"),
        "background_alone_note": language.text(
            "Right answers with the object removed; high, too, for a class that the model names "
            "whenever it sees nothing"
        ),
        "gap": language.text("Accuracy lost on other backgrounds"),
        "gap_note": language.text(
            "BG-Gap: right answers on backgrounds of its own class minus those on backgrounds of "
            "other classes"
        ),
        "transplants": language.text("Transplant rate (features)"),
        "transplants_note": language.text(
            "The same exchange in the model's own features, for every image; it tells where to "
            "look and proves nothing"
        ),
        "share": language.text("Heatmap on background"),
        "share_note": language.text(
            "Share of the evidence outside the object; a high share alone means little"
        ),
    }


def _class(language: Language) -> dict[str, str]:
    return {
        "class_counts": language.text("{n} images, {edited} of them tested in pixels"),
        "edits": language.text("What the model says when the picture is changed"),
        "edits_note": language.text(
            "The object is cut out or put in front of another background, in pixels; under each "
            "picture stands the model's answer. Edited pictures look unnatural to a model: compare "
            "them with one another, not with the picture as it is."
        ),
        "edit_decides": language.text(
            "chosen because its background alone decides, as in {share} of the images tested"
        ),
        "edit_other": language.text("one of the images whose background alone does not decide"),
        "edit": language.text("Picture"),
        "edits_accuracy": language.text("Right answers on changed pictures"),
        "right_answers": language.text("Right answers, {n} images"),
        "acc_unedited": language.text("As they are"),
        "acc_object_only": language.text("Object alone"),
        "acc_background_only": language.text("Background alone"),
        "acc_mixed_same": language.text("On a background of its own class"),
        "acc_mixed_rand": language.text("On a background of another class"),
        "acc_fg": language.text("With noise on the object"),
        "acc_bg": language.text("With noise on the background"),
        "answer": language.text("says {name}"),
        "follows_background": language.text("follows the background"),
        "p_class": language.text("{share} for {name}"),
        "alt_edit": language.text("{edit}; the model says {answer}"),
        "masks_of": language.text("masks: {family}"),
        "no_examples": language.text(
            "No pictures of this class are on this page: none could be scored, or other classes "
            "came first. The tables hold all."
        ),
        "no_images": language.text("The split holds no image of this class."),
        "examples_note": language.text(
            "The line is the object's border: evidence outside it comes from the background."
        ),
        "examples_note_estimated": language.text(
            "The line is the border of the object as estimated from the image alone. It can be "
            "wrong: trust your eye over the line."
        ),
        "section_worst": language.text("Most of the evidence on background"),
        "section_median": language.text("Typical"),
        "section_best": language.text("Most of the evidence on the object"),
        "section_random": language.text("Drawn at random"),
        "section_background": language.text("Typical backgrounds"),
        "section_background_channel": language.text(
            "Images in which the channels that read its background add most"
        ),
        "families": language.text("Does the finding hang on how the object was found?"),
        "families_note": language.text(
            "The same test with objects found in other ways. What holds under all of them does "
            "not hang on the masks. The line is the 95% interval; at 0% the background moves no "
            "answers."
        ),
        "evidence_alt": language.text(
            "{family}: background moves {effect} of the answers, 95% interval {low} to {high}."
        ),
        "nothing_tested": language.text("Nothing was tested in pixels."),
        "nothing_scored": language.text("No image of this class has a score."),
        "transplanted": language.text("What its background turns into this class"),
        "transplanted_note": language.text(
            "Objects of other classes in front of this class's backgrounds, in the model's own "
            "features: how often it says this class, and how often it still says what the object "
            "is. This covers every image and only tells where to look."
        ),
        "transplanted_caption": language.text("Objects on this class's backgrounds"),
        "object_class": language.text("Object of class"),
        "to_class": language.text("Called this class"),
        "kept": language.text("Called what it is"),
        "histogram": language.text("How much of the heatmap lies on background, image by image"),
        "histogram_note": language.text(
            "The vertical line is the mean. A high share alone means little: heatmaps are coarse "
            "and spill over every object's border."
        ),
        "histogram_alt": language.text(
            "Histogram over {n} images of the heatmap's share on background, mean {mean}"
        ),
        "axis_effect": language.text("Background moves answers"),
        "axis_share": language.text("Heatmap on background"),
        "axis_images": language.text("Images"),
        "axis_accuracy": language.text("Accuracy"),
        "kinds": language.text("Kinds of background that speak for it"),
        "kinds_note": language.text(
            "The backgrounds of this class's images fall into kinds by the evidence that the "
            "model finds in them. Words describe the whole images of a kind, compared with the "
            "split."
        ),
        "kinds_one": language.text(
            "By the evidence that the model finds in them, the backgrounds of this class's images "
            "are of one kind."
        ),
        "kind": language.text("Kind {n}"),
        "kind_numbers": language.text(
            "{n} images ({share} of the class). Far background adds {logit} logits; transplant "
            "rate {rate}. Accuracy {accuracy} (95% interval {low} to {high}), with other kinds "
            "{outside}."
        ),
        "kind_only": language.text(
            "{n} images ({share} of the class). Far background adds {logit} logits; transplant "
            "rate {rate}. Accuracy {accuracy} (95% interval {low} to {high})."
        ),
        "spuriosity_more": language.text(
            "Of the {n} images whose far background says most for the class, the model gets {gap} "
            "percentage points more right than of the {n} whose background says least (95% "
            "interval {low} to {high} points)."
        ),
        "spuriosity_fewer": language.text(
            "Of the {n} images whose far background says most for the class, the model gets {gap} "
            "percentage points fewer right than of the {n} whose background says least (95% "
            "interval {low} to {high} points)."
        ),
        "spuriosity_unsure": language.text("Not sure after allowing for all classes, q = {q}."),
        "more_backgrounds": language.text("More of its backgrounds"),
        "strata": language.text("Where it is better or worse"),
        "strata_note": language.text(
            "The class's images sorted into kinds; the line is the 95% interval of the accuracy."
        ),
        "strata_alt": language.text("Accuracy with interval for kinds of images; see the table"),
        "stratum": language.text("Kind of images"),
        "sheets": language.text("Contact sheets"),
        "sheets_note": language.text("Pictures for a slide, in the folder beside this page."),
        "sheet_examples": language.text("Examples with heatmaps (PNG)"),
        "sheet_channels": language.text("Most active channels (PNG)"),
        "sheet_background": language.text("Typical backgrounds (PNG)"),
        "sheet_background_channels": language.text("Channels that read the background (PNG)"),
    }


def _findings(language: Language) -> dict[str, str]:
    return {
        "labels_caption": language.text("Labels that may be wrong"),
        "suggested": language.text("Suggested"),
        "p_of_label": language.text("Probability of the label"),
        "p_of_suggested": language.text("of the suggested"),
        "object_says": language.text("Object says"),
        "background_says": language.text("Background says"),
        "in_pixels": language.text("(in pixels: {name})"),
        "by": language.text("By"),
        "kind_head": language.text("Kind"),
        "confusions_caption": language.text("Labels and the predictions they are taken for"),
        "share_of_label": language.text("Share of the label"),
        "looked_at": language.text("What decides"),
        "region_share": language.text("{region}: {share}"),
        "matrix_alt": language.text(
            "For each background's class (row) and object's class (column), how often the model "
            "answers with the background's class; masks: {family}"
        ),
        "matrix_cell": language.text(
            "{object} in front of a background of {background}: called {background} in {share}"
        ),
        "matrix_corner": language.text("Background (rows), object (columns)"),
        "matrix_table": language.text("The same as a table"),
    }
