"""What happens inside one stage's folder: training, rejection sampling or comparing, with loggers and measurements.

train, fitting              models and data into a Trainer, and the endings of a run
rejection_sampling, data_card   a sampled data set, and what it says of itself
compare                     several stages on the same problems
loggers, metrics_log        where metrics go; metrics.csv across resumes
periodic                    what is measured while a stage trains
"""
