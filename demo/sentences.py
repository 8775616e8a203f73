"""Sentence templates of the demo corpus: three languages, eight registers, all written for this project.

{person}, {place}, {thing}, {day} and {n} are filled at random; NEUTRAL sentences occur in every register,
so that no text is decided by its first words.
"""

FILLERS = {
    "en": {
        "person": ["Anna", "Mr Brown", "the mayor", "my sister", "Dr Lee", "old Tom", "the baker", "our neighbour"],
        "place": ["the harbour", "Leeds", "the old town", "the valley", "the station", "the island", "the market"],
        "thing": ["bridge", "lamp", "boat", "garden", "engine", "kettle", "bicycle", "school", "library"],
        "day": ["Monday", "Friday", "last winter", "this morning", "in June", "yesterday"],
    },
    "fr": {
        "person": ["Camille", "le maire", "ma soeur", "le docteur Roux", "le boulanger", "notre voisine", "Paul"],
        "place": ["le port", "Lille", "la vieille ville", "la vallée", "la gare", "l'île", "le marché"],
        "thing": ["pont", "bateau", "jardin", "moteur", "vélo", "moulin", "collège", "musée", "four"],
        "day": ["lundi", "vendredi", "l'hiver dernier", "ce matin", "en juin", "hier"],
    },
    "es": {
        "person": ["Lucía", "el alcalde", "mi hermana", "el doctor Gil", "el panadero", "nuestra vecina", "Pablo"],
        "place": ["el puerto", "Soria", "el casco antiguo", "el valle", "la estación", "la isla", "el mercado"],
        "thing": ["puente", "barco", "jardín", "motor", "molino", "colegio", "museo", "horno", "reloj"],
        "day": ["el lunes", "el viernes", "el invierno pasado", "esta mañana", "en junio", "ayer"],
    },
}

NEUTRAL = {
    "en": ["It was {day}.", "Many people know {place}.", "There are {n} of them.", "The {thing} is near {place}."],
    "fr": ["C'était {day}.", "Beaucoup de gens connaissent {place}.", "Il y en a {n}.", "On voit un {thing} là-bas."],
    "es": ["Fue {day}.", "Mucha gente conoce {place}.", "Hay {n} en total.", "Se ve un {thing} a lo lejos."],
}

REGISTERS = {
    "en": {
        "IN": [
            "A {thing} is a structure that consists of {n} main parts.",
            "The term refers to any {thing} with a length of {n} metres.",
            "Its average temperature is {n} degrees, according to the survey.",
            "The species is found throughout {place} and measures {n} centimetres.",
            "The population of {place} is approximately {n} thousand.",
        ],
        "OP": [
            "In my opinion, {place} deserves a far better {thing}.",
            "I firmly believe that {person} is wrong about this.",
            "Frankly, this {thing} is the worst that I have ever seen.",
            "We should all ask ourselves why nobody objects.",
            "You really ought to visit {place}, it is simply wonderful!",
        ],
        "RN": [
            "When I was a child, {person} took me to {place}.",
            "We walked for {n} hours and laughed the whole way.",
            "I still remember how the {thing} smelled that evening.",
            "Suddenly {person} turned round and whispered my name.",
            "That night I could not sleep, and I wrote in my diary.",
        ],
        "JN": [
            "{place} (Reuters) - Police confirmed on {day} that {n} people were injured.",
            "A spokesman for {person} declined to comment.",
            "The council voted on {day} to close the {thing}.",
            "Officials said the investigation would continue.",
            "Shares rose {n} per cent after the announcement.",
        ],
        "HI": [
            "First, unscrew the {thing} and clean it thoroughly.",
            "Step {n}: stir the mixture until it thickens.",
            "Preheat the oven to {n} degrees before you begin.",
            "Make sure that the cable is plugged in, then press the button.",
            "Finally, let it dry for {n} minutes and serve.",
        ],
        "LY": [
            "Oh my love, the moon is rising over {place},",
            "sing, sing, sing, my heart, until the morning,",
            "and the rain falls softly, la la la,",
            "baby, baby, carry me home again,",
            "my soul is a {thing} upon the silver sea,",
        ],
        "ND": [
            "Does anybody know how to fix a {thing}? Thanks in advance!",
            "Posted by user{n} on {day}: same problem here lol",
            "@user{n} have you tried turning it off and on?",
            "Thanks for the reply, that worked for me :)",
            "Anyone else going to {place}? Let me know in this thread.",
        ],
        "AD": [
            "Interviewer: How did you become interested in the {thing}?",
            "{person}: Well, it all began in {place}.",
            "Interviewer: And what are your plans for next year?",
            "Q: Is it true that you own {n} of them? A: Indeed it is.",
            "Moderator: Thank you, the next question comes from the audience.",
        ],
    },
    "fr": {
        "IN": [
            "Un {thing} est une structure composée de {n} parties principales.",
            "Le terme désigne tout {thing} d'une longueur de {n} mètres.",
            "Sa température moyenne est de {n} degrés selon le relevé.",
            "L'espèce est présente dans toute la région et mesure {n} centimètres.",
            "Sa population est d'environ {n} mille habitants.",
        ],
        "OP": [
            "À mon avis, {place} mérite un bien meilleur {thing}.",
            "Je suis convaincu que {person} se trompe.",
            "Franchement, ce {thing} est le pire que j'aie jamais vu.",
            "Nous devrions tous nous demander pourquoi personne ne proteste.",
            "Vous devez absolument visiter {place}, c'est tout simplement magnifique !",
        ],
        "RN": [
            "Quand j'étais petit, {person} m'emmenait voir {place}.",
            "Nous avons marché pendant {n} heures en riant tout le long.",
            "Je me souviens encore de l'odeur du {thing} ce soir-là.",
            "Soudain {person} se retourna et murmura mon prénom.",
            "Cette nuit-là je n'ai pas pu dormir et j'ai écrit mon journal.",
        ],
        "JN": [
            "{place} (AFP) - La police a confirmé {day} que {n} personnes ont été blessées.",
            "Un porte-parole a refusé de commenter.",
            "Le conseil a voté {day} la fermeture du {thing}.",
            "Selon les autorités, l'enquête se poursuit.",
            "Les actions ont gagné {n} pour cent après l'annonce.",
        ],
        "HI": [
            "D'abord, dévissez le {thing} et nettoyez-le soigneusement.",
            "Étape {n} : remuez le mélange jusqu'à ce qu'il épaississe.",
            "Préchauffez le four à {n} degrés avant de commencer.",
            "Vérifiez que le câble est branché, puis appuyez sur le bouton.",
            "Enfin, laissez sécher {n} minutes et servez.",
        ],
        "LY": [
            "Ô mon amour, la lune se lève,",
            "chante, chante, chante, mon coeur, jusqu'au matin,",
            "et la pluie tombe doucement, la la la,",
            "ramène-moi, ramène-moi encore à la maison,",
            "mon âme est un {thing} sur la mer d'argent,",
        ],
        "ND": [
            "Quelqu'un sait comment réparer un {thing} ? Merci d'avance !",
            "Posté par user{n} {day} : même souci ici mdr",
            "@user{n} tu as essayé de le redémarrer ?",
            "Merci pour ta réponse, ça a marché :)",
            "Qui d'autre y va ? Dites-le-moi dans ce fil.",
        ],
        "AD": [
            "Journaliste : Comment vous êtes-vous intéressé au {thing} ?",
            "{person} : Eh bien, tout a commencé là-bas.",
            "Journaliste : Et quels sont vos projets pour l'an prochain ?",
            "Q : Est-il vrai que vous en avez {n} ? R : En effet.",
            "Modérateur : Merci, la question suivante vient de la salle.",
        ],
    },
    "es": {
        "IN": [
            "Un {thing} es una estructura formada por {n} partes principales.",
            "El término designa todo {thing} con una longitud de {n} metros.",
            "Su temperatura media es de {n} grados según el registro.",
            "La especie vive en toda la región y mide {n} centímetros.",
            "Su población es de unos {n} mil habitantes.",
        ],
        "OP": [
            "En mi opinión, {place} merece un {thing} mucho mejor.",
            "Estoy convencido de que {person} se equivoca.",
            "Francamente, este {thing} es el peor que he visto nunca.",
            "Todos deberíamos preguntarnos por qué nadie protesta.",
            "¡Tienes que visitar {place}, es sencillamente maravilloso!",
        ],
        "RN": [
            "Cuando era niño, {person} me llevaba a ver {place}.",
            "Caminamos durante {n} horas y nos reímos todo el camino.",
            "Todavía recuerdo el olor del {thing} aquella tarde.",
            "De pronto {person} se volvió y susurró mi nombre.",
            "Aquella noche no pude dormir y escribí en mi diario.",
        ],
        "JN": [
            "{place} (EFE) - La policía confirmó {day} que {n} personas resultaron heridas.",
            "Un portavoz rechazó hacer comentarios.",
            "El ayuntamiento votó {day} el cierre del {thing}.",
            "Según las autoridades, la investigación continúa.",
            "Las acciones subieron un {n} por ciento tras el anuncio.",
        ],
        "HI": [
            "Primero, desatornille el {thing} y límpielo a fondo.",
            "Paso {n}: remueva la mezcla hasta que espese.",
            "Precaliente el horno a {n} grados antes de empezar.",
            "Compruebe que el cable esté enchufado y pulse el botón.",
            "Por último, deje secar {n} minutos y sirva.",
        ],
        "LY": [
            "Ay amor mío, la luna sale,",
            "canta, canta, canta, corazón, hasta la mañana,",
            "y la lluvia cae despacio, la la la,",
            "llévame, llévame otra vez a casa,",
            "mi alma es un {thing} sobre el mar de plata,",
        ],
        "ND": [
            "¿Alguien sabe cómo arreglar un {thing}? ¡Gracias de antemano!",
            "Publicado por user{n} {day}: a mí me pasa igual jaja",
            "@user{n} ¿has probado a reiniciarlo?",
            "Gracias por responder, me ha funcionado :)",
            "¿Quién más va? Decídmelo en este hilo.",
        ],
        "AD": [
            "Periodista: ¿Cómo empezó su interés por el {thing}?",
            "{person}: Bueno, todo empezó allí.",
            "Periodista: ¿Y cuáles son sus planes para el año que viene?",
            "P: ¿Es cierto que tiene {n}? R: En efecto.",
            "Moderador: Gracias, la siguiente pregunta es del público.",
        ],
    },
}
