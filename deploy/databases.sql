-- Databases beside Airflow's own, made when the server first starts; the password is the one of the environment.
\getenv password POSTGRES_PASSWORD
CREATE USER mlflow PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE USER label_studio PASSWORD :'password';
CREATE DATABASE label_studio OWNER label_studio;
CREATE USER chat PASSWORD :'password';
CREATE DATABASE chat OWNER chat;
