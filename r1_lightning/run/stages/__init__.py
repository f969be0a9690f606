"""Running one stage in its folder: training, rejection sampling or comparing, with loggers and evaluation.

kinds                       which function runs each kind of stage
train, fitting, trained     builds model and data, runs the Trainer unless that is done, and handles the ways a run can end
rejection_sampling, data_card   makes a sampled data set and its card
compare                     evaluates several models on the same problems
loggers, metrics_log        loggers; metrics.csv across resumes
board, board_layout         TensorBoard: groups of curves, settings beside results
periodic                    evaluation during training
held_out_text               text that pre-training does not see, beside n-gram models
"""
